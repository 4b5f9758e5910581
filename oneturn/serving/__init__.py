"""The ASGI app, the server and the terminal."""
