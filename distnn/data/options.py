"""Which columns of a table are what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableOptions:
    """Which columns of a table are what, as flags name them.

    Attributes:
        drop, categorical: names of columns, joined by commas.
        weight: the column, or the array of an npz file, with the weights of the rows.
        impute: whether missing values are filled in, else refused.
        delimiter: of a csv file; None: it is found.
    """

    drop: str | None = None
    categorical: str | None = None
    weight: str | None = None
    impute: bool = True
    delimiter: str | None = None

    @property
    def named(self) -> str:
        """The flags that are given and that nothing but a table has."""
        given = {"--drop": self.drop, "--categorical": self.categorical,
                 "--delimiter": self.delimiter}  # fmt: skip
        return ", ".join(flag for flag, value in given.items() if value is not None)
