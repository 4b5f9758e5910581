"""What ``oneturn new`` writes: a project with an agent that runs at once."""

from oneturn.scaffold.project import KINDS, wrap_module, write_project

__all__ = ["KINDS", "wrap_module", "write_project"]
