"""The models that travel with the package: directories with an int8 graph and a card each. Made by `make model`."""
