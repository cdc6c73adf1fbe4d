"""A backend's module that fails while it is imported, and not with an ImportError."""

raise AttributeError("the library is of a version that this module does not know")
