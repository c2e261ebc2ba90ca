"""How colours look to a reader: contrast, and what is left of a difference with one kind of cone missing.

Sources: WCAG 2.2, "relative luminance" and "contrast ratio"; G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A
Physiologically-based Model for Simulation of Color Vision Deficiency", 2009 (matrices of severity 1.0, on linear RGB);
B. Ottosson, "A perceptual color space for image processing", 2020 (OKLab).
"""

from __future__ import annotations

import re

__all__ = ["DEFICIENCIES", "Rgb", "contrast", "difference", "parse"]

Rgb = tuple[float, float, float]
Matrix = tuple[Rgb, Rgb, Rgb]

SEEN: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
DEFICIENCIES: dict[str, Matrix] = {
    "none": SEEN,
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def parse(text: str) -> Rgb:
    """`rgb(0, 114, 178)` as a browser computes it, as linear RGB in [0, 1]."""
    red, green, blue = (_linear(float(part) / 255) for part in re.findall(r"[\d.]+", text)[:3])
    return red, green, blue


def _linear(x: float) -> float:
    return x / 12.92 if x <= 0.04045 else float(((x + 0.055) / 1.055) ** 2.4)


def contrast(a: Rgb, b: Rgb) -> float:
    """1 to 21."""
    light, dark = sorted((0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def difference(a: Rgb, b: Rgb, missing: str) -> float:
    """How far two colours lie apart in OKLab, in hundredths, for eyes with this deficiency."""
    x, y = (_oklab(_through(DEFICIENCIES[missing], colour)) for colour in (a, b))
    return 100 * float(sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) ** 0.5)


def _through(matrix: Matrix, colour: Rgb) -> Rgb:
    red, green, blue = (min(1.0, max(0.0, sum(m * c for m, c in zip(row, colour, strict=True)))) for row in matrix)
    return red, green, blue


def _oklab(colour: Rgb) -> Rgb:
    red, green, blue = colour
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )
