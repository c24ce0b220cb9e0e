"""Firmware: students as C99 libraries, int8 throughout, for cores without an operating system.

A manifest describes libraries by the record here, so that this loads neither torch nor onnx.
"""

from pydantic import Field

from nonn_common.document import Record


class CStudent(Record):
    """C library of a student: its files, its needs, and what comparison with onnxruntime found."""

    source: str = Field(min_length=1, description="Name of its C file.")
    header: str = Field(min_length=1, description="Name of its header: sizes, scale, functions.")
    prefix: str = Field(min_length=1, description="With which its names in C begin.")
    constant_bytes: int = Field(gt=0, description="Weights and all that is constant: flash.")
    arena_bytes: int = Field(gt=0, description="Maps that are alive at once: RAM.")
    column_bytes: int = Field(
        ge=0, description="RAM beyond the arena, for copies of what a convolution reads."
    )
    images: int | None = Field(
        description="Test images on which it was compiled and compared with onnxruntime; null "
        "where there was no C compiler."
    )
    values: int | None = Field(description="Features of these images.")
    values_off: int | None = Field(
        description="Those that are one quantisation step off; none is further off."
    )

    @property
    def files(self) -> tuple[str, str]:
        """Names of its files."""
        return self.header, self.source

    @property
    def compared(self) -> tuple[int | None, int | None, int | None]:
        """Images, their features, and how many are off; null where nothing was compared."""
        return self.images, self.values, self.values_off
