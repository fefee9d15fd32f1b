"What both checks share; runs in the loaders' environments, where cocoift is not installed."

import json
import sys
from importlib.metadata import version
from pathlib import Path


class Report:
    "What was read, and the file it goes to."

    def __init__(self, packages: list[str]):
        self.data, self.path = Path(sys.argv[1]), Path(sys.argv[2])
        self.notes, self.rows, self.versions = [], [], {name: version(name) for name in packages}

    def exports(self, kind: str):
        """Name, file, whether there are pictures, and what must come out of it: (id, images, texts) of each
        conversation."""
        for folder in sorted((self.data / "exports").iterdir()):
            if (path := folder / kind).exists():
                expected = json.loads((folder / "expected.json").read_text())
                yield folder.name, path, expected["pictured"], expected["conversations"]

    def add(self, name: str, path: Path, found: list[tuple[int, list[str]]], expected: list, **more) -> None:
        "Compare what a loader gave, in order, with what was exported."
        wanted = [(images, texts) for _, images, texts in expected]
        differing = [k for k, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]]
        if len(found) != len(wanted) or differing:
            k = differing[0] if differing else min(len(found), len(wanted))
            sys.exit(
                f"{path}: {len(found)} of {len(wanted)} conversations, {len(differing)} differ; "
                f"the first:\n{found[k : k + 1]}\n{wanted[k : k + 1]}"
            )
        self.rows.append(
            {
                "set": name,
                "file": path.name,
                "conversations": len(found),
                "turns": sum(len(texts) for _, texts in found),
                "images": sum(images for images, _ in found),
                **more,
            }
        )

    def write(self) -> None:
        self.path.write_text(json.dumps({"versions": self.versions, "notes": self.notes, "read": self.rows}))


def unmarked(images: int, texts: list[str]) -> list[str]:
    """Texts of LLaVA's layout without its marks, which must stand at the start of the first one, as many as there are
    images."""
    marks = "<image>\n" * images
    if not texts[0].startswith(marks) or sum(text.count("<image>") for text in texts) != images:
        sys.exit(f"{images} images, but {texts}")
    return [texts[0].removeprefix(marks), *texts[1:]]
