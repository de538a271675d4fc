"""What every table of a source must have, whatever it asks."""

from collections.abc import Iterable

import pyarrow as pa

from skimrnn.errors import UserError


def require_columns(table: pa.Table, columns: Iterable[str], place: str) -> None:
    """Refuse a table that lacks one of `columns`, or that has no rows; columns besides them do not matter."""
    for column in columns:
        if column not in table.column_names:
            raise UserError(
                f"{place}: no column {column!r} among {', '.join(table.column_names)}: "
                "the files do not follow the hub's schema; fetch them again"
            )
    if table.num_rows == 0:
        raise UserError(f"{place}: no rows: fetch the file again")
