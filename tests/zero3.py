"""Each rank's memory while ZeRO-3 loads a LLaVA, beside the whole model. Started by test_zero3.py through
DeepSpeed's launcher."""

import gc
import json
import re
import sys
import threading
import time
from pathlib import Path


def held_mb() -> float:  # memory of our own, without pages of mapped files
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


if __name__ == "__main__":
    checkpoint, out = map(Path, sys.argv[-2:])
    import torch

    # what code takes is not counted
    from transformers import CLIPVisionModel, LlamaForCausalLM, LlavaForConditionalGeneration  # noqa: F401

    from cocoift.train.adapt import whole_weights
    from cocoift.train.family import load_model
    from cocoift.train.step import meet

    meet()
    rank = torch.distributed.get_rank()
    gc.collect()
    before, peak, over = held_mb(), 0.0, threading.Event()

    def watch():
        global peak
        while not over.is_set():
            peak = max(peak, held_mb())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    model = load_model(checkpoint, zero3=True)
    over.set()
    watcher.join()
    gc.collect()
    after = held_mb()
    parts = sum(parameter.ds_tensor.numel() for parameter in model.parameters())
    sums = {name: tensor.double().sum().item() for name, tensor in whole_weights(model, first=rank == 0)}
    (out / f"rank{rank}.json").write_text(
        json.dumps({"peak_mb": peak - before, "after_mb": after - before, "share": parts, "sums": sums})
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
