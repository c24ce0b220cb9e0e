"""Where the boards are: `boards.yaml`, which a person writes."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from boards.protocol.address import Address
from profiles.document import Document, Record
from profiles.errors import InputError


class BoardAddress(Record):
    """One board of the plan, and where its worker listens."""

    name: str = Field(min_length=1, description="Name of the board, as in the plan.")
    address: str = Field(description="HOST:PORT of the worker's standard protocol.")
    protocol: Literal["fastest", "standard"] = Field(
        default="fastest",
        description="fastest: frames where the worker advertises them; standard: the Open "
        "Inference Protocol alone, as for Triton or OpenVINO Model Server.",
    )

    @field_validator("address")
    @classmethod
    def _parses(cls, text: str) -> str:
        try:
            Address.parse(text, "address")
        except InputError as error:
            raise ValueError(str(error)) from None
        return text

    @property
    def place(self) -> Address:
        """Host and port."""
        return Address.parse(self.address, self.name)


class BoardAddresses(Document):
    """All boards of a plan."""

    boards: tuple[BoardAddress, ...] = Field(min_length=1, description="The boards.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [board.name for board in self.boards]
        if len(set(names)) < len(names):
            raise ValueError("a board is named twice")
        return self

    def of(self, name: str, where: str) -> BoardAddress:
        """Return one board; raises InputError, for the file `where`, if it is not there."""
        for board in self.boards:
            if board.name == name:
                return board
        raise InputError(
            "a board of the plan has no address",
            where=where,
            found=name,
            allowed=", ".join(board.name for board in self.boards),
            fix="add it with its name in the plan",
        )
