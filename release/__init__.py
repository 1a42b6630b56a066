"""What makes and checks a release: the library for each platform, the wheels, the size of an installation. Not installed."""
