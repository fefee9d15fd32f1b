"ms-swift reads llava.json and both kinds of messages: `python check_ms_swift.py DATA REPORT`."

import os
from importlib.util import find_spec

import pyarrow.parquet as pq
from common import Report, unmarked

report = Report(["ms-swift", "datasets", "transformers", "trl", "torch"])
if not find_spec("torchvision"):
    report.notes.append(
        "torchvision is not installed: pictures are prepared by transformers' PIL processor, "
        "none of the dataset code that ran needs it"
    )

from swift.dataset import load_dataset  # noqa: E402
from swift.model import get_processor  # noqa: E402
from swift.template import get_template  # noqa: E402

SIZE, PATCH = 48, 16
processor = get_processor(str(report.data / "start"), model_type="llava1_5_hf")
template = get_template(processor)
template.set_mode("train")
mark = processor.tokenizer.convert_tokens_to_ids("<image>")

for kind in "llava.json", "names.parquet", "pictures.parquet":
    for name, path, pictured, expected in report.exports(kind):
        rows, _ = load_dataset([str(path)], load_from_cache_file=False, strict=True)
        os.environ["ROOT_IMAGE_DIR"] = str(report.data / "pictures" / name)
        held = pq.read_table(path)["images"].to_pylist() if kind == "pictures.parquet" else None
        found, encoded, kept = [], 0, 0
        for k, (row, (_, count, _)) in enumerate(zip(rows, expected)):
            images, texts = row.get("images") or [], [turn["content"] for turn in row["messages"]]
            assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (len(texts) // 2)
            assert all(bool(image["bytes"]) == (held is not None) for image in images)
            kept += sum(image["bytes"] == other["bytes"] for image, other in zip(images, held[k])) if held else 0
            found.append((len(images), unmarked(len(images), texts) if kind == "llava.json" else texts))
            if pictured:  # then the whole way, pictures opened and texts tokenised
                ids = template.encode(dict(row))["input_ids"]
                assert ids.count(mark) == (SIZE // PATCH) ** 2 * count, (count, ids.count(mark))
                encoded += 1
        report.add(
            name,
            path,
            found + [(0, [])] * (len(rows) - len(found)),
            expected,
            **({"encoded": encoded} if pictured else {}),
            **({"pictures byte for byte": kept} if held else {}),
        )
report.write()
