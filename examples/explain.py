"""Write the page that explains transposed convolution cell by cell, and say where it is."""

from pathlib import Path

import tconv

OUTPUT = Path(__file__).resolve().parents[1] / "out"


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    explainer = tconv.explain()
    page = OUTPUT / "explainer.html"
    explainer.save(page)
    explainer.save(OUTPUT / "explainer.gif")
    print(explainer)
    print(f"The page that explains it, cell by cell: {page.as_uri()}")


if __name__ == "__main__":
    main()
