"ZeRO-3 loads a model in parts: no rank holds it whole, and what was loaded is what the files say."

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_no_rank_holds_the_model(tmp_path, root):
    from transformers import CLIPVisionModel, LlamaForCausalLM

    from cocoift.train.family import load_model
    from cocoift.train.layout import real_configs
    from cocoift.train.model import byte_tokenizer
    from cocoift.train.on_disk import assemble_on_disk
    from cocoift.train.processes import CPU_RANKS

    seen, spoken = real_configs("7b")
    seen.num_hidden_layers, spoken.num_hidden_layers = 2, 4
    (
        spoken.hidden_size,
        spoken.intermediate_size,
        spoken.num_attention_heads,
        spoken.num_key_value_heads,
        spoken.vocab_size,
    ) = 1024, 2816, 8, 8, 8192
    CLIPVisionModel(seen).save_pretrained(tmp_path / "vision")
    (tmp_path / "vision/preprocessor_config.json").write_text(
        json.dumps({"crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336}})
    )
    LlamaForCausalLM(spoken).save_pretrained(tmp_path / "language")
    byte_tokenizer(["Is this place safe?"]).save_pretrained(tmp_path / "language")
    assemble_on_disk(tmp_path / "vision", tmp_path / "language", tmp_path / "llava")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "deepspeed.launcher.runner",
            "--num_gpus",
            "2",
            "--master_port",
            "29641",
            root / "tests/zero3.py",
            tmp_path / "llava",
            tmp_path,
        ],
        env=os.environ | CPU_RANKS | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (tmp_path / "rank1.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    model = load_model(tmp_path / "llava")
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"whole {whole * 4 / 2**20:.0f} MB;",
        *(f"rank {k}: peak {r['peak_mb']:.0f} MB, then {r['after_mb']:.0f} MB;" for k, r in enumerate(ranks)),
    )
    assert [abs(r["share"] / whole - 0.5) < 0.01 for r in ranks] == [True, True]
    assert max(r["peak_mb"] for r in ranks) < 0.8 * whole * 4 / 2**20
    assert ranks[0]["sums"] == {
        name: pytest.approx(tensor.double().sum().item(), abs=1e-6) for name, tensor in model.state_dict().items()
    }
