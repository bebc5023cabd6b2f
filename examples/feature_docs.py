"""Write docs/features.md anew from the catalogue and from docs/ablation.md: python examples/feature_docs.py."""

from pathlib import Path

from bfrbctl.features.documentation import features_markdown

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    ablation = DOCS / "ablation.md"
    appendix = f"\n{ablation.read_text()}" if ablation.exists() else ""
    (DOCS / "features.md").write_text(features_markdown() + appendix)


if __name__ == "__main__":
    main()
