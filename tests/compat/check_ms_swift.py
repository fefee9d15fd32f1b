"ms-swift reads llava.json and both kinds of messages: `python check_ms_swift.py DATA REPORT`."
from importlib.util import find_spec

from common import Report, unmarked

report = Report(["ms-swift", "datasets", "transformers", "trl", "torch"])
if not find_spec("torchvision"):
    report.notes.append("torchvision is not installed: pictures are prepared by transformers' PIL processor, all of ms-swift's dataset code ran")

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
        found, encoded = [], 0
        for row, (_, count, _) in zip(rows, expected):
            images, texts = row.get("images") or [], [turn["content"] for turn in row["messages"]]
            assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (len(texts) // 2)
            assert all(bool(image["bytes"]) == (kind == "pictures.parquet") for image in images)
            found.append((len(images), unmarked(len(images), texts) if kind == "llava.json" else texts))
            if pictured:  # then the whole way, pictures opened and texts tokenised
                ids = template.encode(dict(row))["input_ids"]
                assert ids.count(mark) == (SIZE // PATCH) ** 2 * count, (count, ids.count(mark))
                encoded += 1
        report.add(name, path, found + [(0, [])] * (len(rows) - len(found)), expected, **({"encoded": encoded} if pictured else {}))
report.write()
