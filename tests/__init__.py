"""The project's tests; a package, since some libraries install one of this name too."""
