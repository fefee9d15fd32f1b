"Tiny random checkpoints of model families, each with the processor and chat template of its kind."

import json
import re
from pathlib import Path

import torch

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}{{ IMAGE }}{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As public copies of llava-hf checkpoints have it: no system prompt, nothing that stops.
VICUNA_HF = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{% if m.role != 'assistant' %}{{ c.text + ' ' }}{% else %}"
    "{% generation %}{{ c.text + ' ' }}{% endgeneration %}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}"
    "{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
TEXT = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
)
SEEN = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)


def tokenizer(control: list[str], stop: str, texts=("Is this place safe? Yes, it is. user assistant",), **named):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<pad>", stop, *control],
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=t,
        eos_token=stop,
        pad_token="<pad>",
        additional_special_tokens=control,
        extra_special_tokens=named,
    )


def sentencepiece_like():
    "A tokenizer as LLaMA's: a space before every text, spaces as \u2581, bytes for what it does not know."
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.train_from_iterator(
        ["Is this place safe? Yes, it is. USER ASSISTANT"], trainers.BpeTrainer(vocab_size=100, show_progress=False)
    )
    made = json.loads(t.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", "<image>", *(f"<0x{byte:02X}>" for byte in range(256)), *made["vocab"]]
    t.model = models.BPE(
        {name: number for number, name in enumerate(names)},
        [tuple(pair) for pair in made["merges"]],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    t.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>", additional_special_tokens=["<image>"]
    )


def without_video(kind):
    "A processor class that opens without torchvision."
    return type(
        kind.__name__,
        (kind,),
        {"check_argument_for_proper_class": lambda self, name, value: None, "__module__": kind.__module__},
    )


def llava_next(out: Path):
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    tok, pins = tokenizer(["<image>", "<s>"], "</s>"), [[32, 64], [64, 32], [64, 64]]
    tok.bos_token = "<s>"
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **SEEN),
        text_config=LlamaConfig(vocab_size=len(tok), **TEXT),
        image_grid_pinpoints=pins,
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=pins
        ),
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=VICUNA_HF,
        num_additional_image_tokens=1,
    )
    return LlavaNextForConditionalGeneration(config), processor


def idefics3(out: Path):
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    rows = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tok = tokenizer(
        ["<fake_token_around_image>", "<image>", "<global-img>", "<|im_start|>", *rows], "<end_of_utterance>"
    )
    config = Idefics3Config(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        vision_config={"image_size": 32, "patch_size": 8, **SEEN},
        text_config={"model_type": "llama", "vocab_size": len(tok), "pad_token_id": 0, **TEXT},
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tok,
        image_seq_len=4,
        chat_template=IDEFICS,
    )
    return Idefics3ForConditionalGeneration(config), processor


def smolvlm(out: Path):
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, SmolVLMProcessor

    rows = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tok = tokenizer(
        ["<fake_token_around_image>", "<image>", "<global-img>", "<|im_start|>", *rows], "<end_of_utterance>"
    )
    config = SmolVLMConfig(
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        vision_config={"image_size": 32, "patch_size": 8, **SEEN},
        text_config={"model_type": "llama", "vocab_size": len(tok), "pad_token_id": 0, **TEXT},
    )
    pictures = SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return SmolVLMForConditionalGeneration(config), without_video(SmolVLMProcessor)(
        pictures, tok, None, image_seq_len=4, chat_template=IDEFICS
    )


def qwen2_5_vl(out: Path):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

    tok = tokenizer(
        ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"], "<|im_end|>"
    )
    ids = {
        f"{name}_token_id": tok.convert_tokens_to_ids(f"<|{mark}|>")
        for name, mark in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tok),
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
            **TEXT,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "patch_size": 14,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        **ids,
    )
    template = CHATML.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'")
    return Qwen2_5_VLForConditionalGeneration(config), without_video(Qwen2_5_VLProcessor)(
        Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 16), tok, chat_template=template
    )


def internvl(out: Path):
    from transformers import (
        GotOcr2ImageProcessorPil,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
    )

    tok = tokenizer(
        ["<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
        "<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        vision_config={"image_size": [32, 32], "patch_size": [8, 8], **SEEN},
        text_config={"model_type": "qwen2", "vocab_size": len(tok), **TEXT},
    )
    processor = without_video(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4),
        tok,
        image_seq_length=4,
        chat_template=CHATML.replace("IMAGE", "'<IMG_CONTEXT>\n'"),
    )
    return InternVLForConditionalGeneration(config), processor


def llava(out: Path):
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaImageProcessorPil,
        LlavaProcessor,
    )

    tok = tokenizer(["<image>", "<s>"], "</s>")
    tok.bos_token = "<s>"
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **SEEN),
        text_config=LlamaConfig(vocab_size=len(tok), **TEXT),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        LlavaImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=VICUNA_HF,
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def windowed(out: Path):
    "A LLaVA whose language model, a Gemma-3, looks back over eight tokens in one of its layers."
    from transformers import Gemma3TextConfig, LlavaConfig, LlavaForConditionalGeneration

    model, processor = llava(out)
    text = Gemma3TextConfig(
        **{
            **TEXT,
            "vocab_size": len(processor.tokenizer),
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "pad_token_id": 0,
        }
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=model.config.vision_config,
            text_config=text,
            image_token_id=model.config.image_token_id,
            vision_feature_layer=-1,
            image_seq_length=16,
        )
    ), processor


FAMILIES = {build.__name__: build for build in (llava_next, idefics3, qwen2_5_vl, internvl)}
# llava is tested elsewhere too; SmolVLM's own processor cannot say its template without a video part
EXACT = FAMILIES | {build.__name__: build for build in (llava, windowed, smolvlm)}


def make(name: str, out: Path) -> Path:
    "A checkpoint folder."
    torch.manual_seed(0)
    model, processor = EXACT[name](out)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        processor.tokenizer.eos_token_id,
        processor.tokenizer.pad_token_id,
    )
    model.save_pretrained(out)
    try:
        processor.save_pretrained(out)
    except (
        Exception
    ):  # a processor without its video part does not save itself: written as checkpoints of its kind have it
        processor.image_processor.save_pretrained(out)
        processor.tokenizer.chat_template = processor.chat_template
        processor.tokenizer.save_pretrained(out)
        kept = {
            name: getattr(processor, name) for name in ("image_seq_length", "image_seq_len") if hasattr(processor, name)
        }
        (out / "processor_config.json").write_text(json.dumps({"processor_class": type(processor).__name__, **kept}))
    return out


def babbler(start: Path, out: Path) -> Path:
    """A tiny LLaVA of large random weights that can say nothing but words: what it says hangs on the picture and on
    every round before, and it stops."""
    from cocoift.models.family import open_family
    from cocoift.train.family import load_model
    from cocoift.train.model import save_llava

    model, processor = load_model(start), open_family(start).processor
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
        for number in range(len(model.lm_head.weight)):
            if number != processor.tokenizer.eos_token_id and not re.fullmatch(
                r" ?[A-Za-z]+", processor.tokenizer.decode([number])
            ):
                model.lm_head.weight[number] = 0
    return save_llava(model, processor, out)


# Vision towers and language models of their own, to be put together

WORDS = (
    "Is this place safe? Yes, it is. No, nobody is there. Why? Because the sea is calm and grey. What is "
    "unusual? A boat lies at the quiet pier. user assistant system USER ASSISTANT INST",
)
EYES = dict(hidden_size=32, num_hidden_layers=5, num_attention_heads=4, patch_size=8)


def _write(folder: Path, **told) -> None:
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_resize": True,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": [0.5, 0.4, 0.3],
                "image_std": [0.2, 0.3, 0.25],
                **told,
            }
        )
    )


def clip_tower(out: Path) -> None:
    "A whole CLIP, trained at 48 pixels, its processor set to 32."
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=dict(intermediate_size=64, image_size=48, **EYES), projection_dim=16)
    ).save_pretrained(out)
    _write(out, size=32, crop_size=32, do_center_crop=True, resample=3, feature_extractor_type="CLIPFeatureExtractor")


def siglip_tower(out: Path) -> None:
    "A whole SigLIP (or a SigLIP2 of a fixed size): no class token, no crop."
    from transformers import SiglipConfig, SiglipModel

    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "projection_size": 32,
    }
    SiglipModel(
        SiglipConfig(text_config=text, vision_config=dict(intermediate_size=64, image_size=32, **EYES))
    ).save_pretrained(out)
    _write(out, size={"height": 32, "width": 32}, resample=3, image_processor_type="SiglipImageProcessor")


def dinov2_tower(out: Path) -> None:
    "As Meta ships it: the configuration says 56 pixels, the processor shrinks to 36 and cuts out 32."
    from transformers import Dinov2Config, Dinov2Model

    Dinov2Model(Dinov2Config(image_size=56, **EYES)).save_pretrained(out)
    _write(
        out,
        size={"shortest_edge": 36},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        resample=3,
        image_processor_type="BitImageProcessor",
    )


def registers_tower(out: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    Dinov2WithRegistersModel(Dinov2WithRegistersConfig(image_size=56, num_register_tokens=4, **EYES)).save_pretrained(
        out
    )
    _write(
        out,
        size={"shortest_edge": 36},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        resample=3,
        image_processor_type="BitImageProcessor",
    )


def dinov3_tower(out: Path) -> None:
    "Four registers, rotary places, and a processor that takes torchvision."
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    DINOv3ViTModel(DINOv3ViTConfig(image_size=48, intermediate_size=64, num_register_tokens=4, **EYES)).save_pretrained(
        out
    )
    _write(
        out,
        size={"height": 32, "width": 32},
        resample=2,
        do_center_crop=None,
        crop_size=None,
        image_processor_type="DINOv3ViTImageProcessorFast",
    )


TOWERS = {
    build.__name__.removesuffix("_tower"): build
    for build in (clip_tower, siglip_tower, dinov2_tower, registers_tower, dinov3_tower)
}

# What their chat templates write, by the words of their model cards
_PLAIN_CHATML = (
    "{%% if messages[0].role != 'system' %%}{{ '<|im_start|>system\n%s<|im_end|>\n' }}{%% endif %%}"
    "{%% for m in messages %%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' "
    "+ '\n' }}{%% endfor %%}{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)
_QWEN3 = (
    "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content + '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SMOLLM3 = (
    "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: "
    "/think\n\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% for m in messages if m.role != 'system' %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{% set system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% endif %}{% endfor %}"
    "{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first and system is defined else "
    "'') + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n<|eot_id|>' "
    "}}{% endif %}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}{% else %}"
    "{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' + "
    "(first if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# GLM-4 ends an answer with the token that begins the next question
_GLM = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def bytes_of(control: list[str], template: str | None = None, **marks):
    "A byte-level tokenizer with these control tokens."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    t.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=control,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=t, chat_template=template, additional_special_tokens=control, **marks
    )


def pieces_of(control: list[str], scheme: str, template: str | None = None, **marks):
    "A SentencePiece tokenizer: a space before a text that stands first, or before every one behind a control token."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="always", split=False)
    t.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    made = json.loads(t.to_str())["model"]
    names = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *made["vocab"]]
    t = Tokenizer(
        models.BPE(
            {name: number for number, name in enumerate(names)},
            [tuple(pair) for pair in made["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    t.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme=scheme, split=False)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=t, chat_template=template, additional_special_tokens=control, **marks
    )


SPIECE = dict(unk_token="<unk>", bos_token="<s>", eos_token="</s>")
TURNS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")
LLAMA3_MARKS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
]
LANGUAGES = {  # configuration class, its own settings, tokenizer, the stops of its generation settings
    "llama2": ("LlamaConfig", {}, lambda: pieces_of(["<unk>", "<s>", "</s>"], "first", _LLAMA2, **SPIECE), ["</s>"]),
    "vicuna": (
        "LlamaConfig",
        {},
        lambda: pieces_of(["<unk>", "<s>", "</s>"], "always", None, pad_token="<unk>", **SPIECE),
        ["</s>"],
    ),
    "llama3": (
        "LlamaConfig",
        {},
        lambda: bytes_of(LLAMA3_MARKS, _LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"),
        ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
    ),
    "qwen2": (
        "Qwen2Config",
        {},
        lambda: bytes_of(TURNS, _PLAIN_CHATML % "You are a helpful assistant.", **QWEN),
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "qwen2_5": (
        "Qwen2Config",
        {"tie_word_embeddings": True, "vocab_size": 512},
        lambda: bytes_of(
            TURNS, _PLAIN_CHATML % "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", **QWEN
        ),
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "qwen3": (
        "Qwen3Config",
        {"head_dim": 8},
        lambda: bytes_of([*TURNS, "<think>", "</think>"], _QWEN3, **QWEN),
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "smollm2": (
        "LlamaConfig",
        {"tie_word_embeddings": True},
        lambda: bytes_of(
            TURNS,
            _PLAIN_CHATML % "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
        ),
        ["<|im_end|>"],
    ),
    "smollm3": (
        "SmolLM3Config",
        {},
        lambda: bytes_of(TURNS, _SMOLLM3, eos_token="<|im_end|>", pad_token="<|im_end|>"),
        ["<|im_end|>"],
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        lambda: bytes_of(TURNS, _PLAIN_CHATML % "You are a helpful assistant.", **QWEN),
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "mixtral": (
        "MixtralConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        lambda: pieces_of(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], "first", _MISTRAL, **SPIECE),
        ["</s>"],
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "tie_word_embeddings": True,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        lambda: bytes_of(
            ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
            _GEMMA,
            bos_token="<bos>",
            eos_token="<eos>",
            pad_token="<pad>",
        ),
        ["<eos>", "<end_of_turn>"],
    ),
    "mistral": (
        "MistralConfig",
        {"sliding_window": None},
        lambda: pieces_of(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], "first", _MISTRAL, **SPIECE),
        ["</s>"],
    ),
    "glm4": (
        "Glm4Config",
        {"head_dim": 8},
        lambda: bytes_of(
            ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
            _GLM,
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        ),
        ["<|endoftext|>", "<|user|>", "<|observation|>"],
    ),
    "phi3": (
        "Phi3Config",
        {},
        lambda: pieces_of(
            ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
            "first",
            _PHI,
            unk_token="<unk>",
            bos_token="<s>",
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        ),
        ["<|endoftext|>", "<|assistant|>", "<|end|>"],
    ),
}


def language(name: str, out: Path) -> None:
    "A language model whose answers hang on every word before, and now and then end."
    import transformers

    kind, own, make_tokenizer, stops = LANGUAGES[name]
    tok = make_tokenizer()
    ends = [tok.convert_tokens_to_ids(stop) for stop in stops]
    config = getattr(transformers, kind)(
        **{
            "vocab_size": len(tok),
            **TEXT,
            "bos_token_id": tok.bos_token_id,
            "eos_token_id": ends[0],
            "pad_token_id": tok.pad_token_id,
            **own,
        }
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5)
        if config.tie_word_embeddings:  # or every token asks for itself again
            model.get_input_embeddings().weight.mul_(0.1)
        for number in range(len(tok)) if not config.tie_word_embeddings else ():
            if tok.convert_ids_to_tokens(number).startswith("<0x"):
                model.lm_head.weight[number] = 0  # half a letter is no answer
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ends if len(ends) > 1 else ends[0], bos_token_id=tok.bos_token_id, pad_token_id=tok.pad_token_id
    )
    model.save_pretrained(out)
    tok.save_pretrained(out)


def part(name: str, out: Path) -> Path:
    "A vision tower's or a language model's folder."
    out.mkdir(parents=True)
    torch.manual_seed(1)
    TOWERS[name](out) if name in TOWERS else language(name, out)
    return out


_GGUF_NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def as_gguf(folder: Path, out: Path, kind: str = "F32") -> Path:
    "The folder of a Qwen-2 as one GGUF file, its matrices in that kind of number."
    import gguf
    from safetensors.torch import load_file

    config, tokenizer, marks = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("config", "tokenizer", "tokenizer_config")
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    control = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    names = {number: name for name, number in tokenizer["model"]["vocab"].items()} | control
    types = [gguf.TokenType.CONTROL if number in control else gguf.TokenType.NORMAL for number in sorted(names)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([names[number] for number in sorted(names)])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    by_name = {name: number for number, name in names.items()}
    writer.add_eos_token_id(by_name[marks["eos_token"]])
    writer.add_pad_token_id(by_name[marks["pad_token"]])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    for name, tensor in load_file(folder / "model.safetensors").items():
        stem, _, what = name.removeprefix("model.").rpartition(".")
        layer, number, rest = re.fullmatch(r"(layers\.(\d+)\.)?(.*)", stem).groups()
        own, values = f"{f'blk.{number}.' if layer else ''}{_GGUF_NAMES[rest]}.{what}", tensor.float().numpy()
        raw = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        writer.add_tensor(own, gguf.quants.quantize(values, raw), raw_dtype=raw)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return out
