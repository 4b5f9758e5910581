"""``python -m benchmarks``: run the measurement of quality."""

from benchmarks.quality import main

if __name__ == "__main__":
    main()
