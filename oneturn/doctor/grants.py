"""What somebody may do with what Unity Catalog keeps."""

from __future__ import annotations

from oneturn.doctor.asking import Asker


def may(asker: Asker, kind: str, name: str, privilege: str) -> bool | None:
    """Whether a privilege is granted, to the asker or to a group of theirs; ``None`` if the catalog doesn't tell.

    Args:
        asker: who asks.
        kind: what it is, as Unity Catalog says: ``"FUNCTION"``, ``"TABLE"``, ``"SCHEMA"``, …
        name: its full name.
        privilege: such as ``"EXECUTE"``.
    """
    from databricks.sdk.errors.base import DatabricksError

    wanted, page = {privilege, "ALL_PRIVILEGES"}, None
    while True:
        try:
            found = asker.client.grants.get_effective(kind, name, page_token=page)
        except DatabricksError:  # to see grants is a privilege, too
            return None
        for assignment in found.privilege_assignments or ():
            held = {given.privilege.value for given in assignment.privileges or () if given.privilege}
            if assignment.principal in asker.principals and held & wanted:
                return True
        if not (page := found.next_page_token):
            return False
