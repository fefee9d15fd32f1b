"Two ranks, every ZeRO stage, with and without accumulation: the losses of three steps, written by rank 0. Started by test_exact.py through DeepSpeed's launcher."
import json
import sys
from pathlib import Path

from cocoift.train.loop import Pictures, _engine, read_trees, run_step
from cocoift.train.recipe import TrainRecipe

if __name__ == "__main__":
    job, out = map(Path, sys.argv[-2:])
    told, losses = json.loads(job.read_text()), {}
    for zero in (0, 1, 2, 3):
        for micro_batch in (2, 1):
            recipe = TrainRecipe.model_validate(told | {"zero": zero, "micro_batch": micro_batch, "ranks": 2})
            engine, model, processor = _engine(recipe)
            trees, _ = read_trees(recipe, processor, model.config.image_seq_length)
            pictures = Pictures(recipe.images, processor)
            losses[f"zero {zero}, micro-batch {micro_batch}"] = [run_step(engine, trees, pictures, recipe)[0] for _ in range(3)]
    import torch.distributed as dist

    if dist.get_rank() == 0:
        out.write_text(json.dumps(losses))
    dist.barrier()
    dist.destroy_process_group()
