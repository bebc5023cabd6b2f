"""Write docs/features.md anew from the catalogue and from what was measured: python examples/feature_docs.py."""

from pathlib import Path

from bfrbctl.features.documentation import features_markdown

DOCS = Path(__file__).parents[1] / "docs"
APPENDICES = ("ablation.md", "flips.md")


def main() -> None:
    appendices = [f"\n{(DOCS / name).read_text()}" for name in APPENDICES]
    (DOCS / "features.md").write_text("".join([features_markdown(), *appendices]))


if __name__ == "__main__":
    main()
