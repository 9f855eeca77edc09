"""What is wrong with a file: the object, and what was found and would have been allowed there."""


class Problem(Exception):
    """One thing in a file that breaks the specification, or one file that cannot be read."""

    def __init__(self, where, what):
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class MissingKey(Problem):
    """An encrypted file, and no key that opens it."""


class MissingParent(Problem):
    """An incremental file whose parent is not among the files given."""


def strict(problem):
    """For readers that want nothing of a file that has any problem; verify collects them in a list instead."""
    raise problem
