"""``python -m benchmarks``: run the quality benchmark."""

from benchmarks.quality import main

if __name__ == "__main__":
    main()
