"LLaMA-Factory reads llava.json through its dataset_info.json: `python check_llamafactory.py DATA REPORT`."

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from common import Report, unmarked

report = Report(["llamafactory", "datasets", "transformers", "trl", "torch"])
try:
    import torchaudio  # noqa: F401
except ImportError:  # LLaMA-Factory imports it for sound, which we have none of
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    report.notes.append("torchaudio is an empty module here: nothing of LLaMA-Factory that reads sound was run")
try:
    import torchvision  # noqa: F401
except ImportError:
    report.notes.append(
        "torchvision is not installed: pictures are prepared by transformers' PIL processor, "
        "none of the dataset code that ran needs it"
    )

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer  # noqa: E402
from llamafactory.data.loader import _get_merged_dataset  # noqa: E402
from llamafactory.hparams import DataArguments, ModelArguments  # noqa: E402
from transformers import AutoTokenizer, LlavaImageProcessorPil, LlavaProcessor, Seq2SeqTrainingArguments  # noqa: E402

SIZE, PATCH = 48, 16
start = str(report.data / "start")
tokenizer = AutoTokenizer.from_pretrained(start)
processor = LlavaProcessor(
    LlavaImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}),
    tokenizer,
    patch_size=PATCH,
    vision_feature_select_strategy="default",
    num_additional_image_tokens=1,
)
training = Seq2SeqTrainingArguments(output_dir=str(report.data / "run"), use_cpu=True, report_to="none")

for name, path, pictured, expected in report.exports("llava.json"):
    told = DataArguments(
        template="llava",
        dataset=path.stem,
        dataset_dir=str(path.parent),
        media_dir=str(report.data / "pictures" / name),
        cutoff_len=4096,
        overwrite_cache=True,
    )
    model = ModelArguments(model_name_or_path=start)
    aligned = _get_merged_dataset([path.stem], model, told, training, "sft")
    found = []
    for row in aligned:
        texts = [turn["content"] for turn in row["_prompt"] + row["_response"]]
        assert [turn["role"] for turn in row["_prompt"] + row["_response"]] == ["user", "assistant"] * (len(texts) // 2)
        found.append((len(row["_images"] or []), unmarked(len(row["_images"] or []), texts)))
    more = {}
    if pictured:  # then the whole way, pictures opened and texts tokenised
        template = get_template_and_fix_tokenizer(tokenizer, told)
        told.dataset = [path.stem]
        rows = get_dataset(template, model, told, training, "sft", tokenizer, processor)["train_dataset"]
        tokens = [row["input_ids"].count(tokenizer.convert_tokens_to_ids("<image>")) for row in rows]
        assert tokens == [(SIZE // PATCH) ** 2 * images for _, images, _ in expected], tokens
        assert all(any(label != -100 for label in row["labels"]) for row in rows)
        more = {"tokenised": len(rows)}
    report.add(name, path, found, expected, **more)
report.write()
