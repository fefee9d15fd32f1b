"""How long a build takes, beside the straightforward way: json.load, dictionaries by image, json.dump.

    python tests/bench/build.py [--records 100000 1000000 10000000] [--plain 1000000] [--engine embedded ray] [--quick]

Makes annotation files in the layout of COCO captions, VQAv2, Visual Genome's question answers and region descriptions,
with so many records in all, and builds a data set from them both ways, each in processes of its own, one after the
other. Both ways do one job: the same records, merged by image, exact duplicates settled, val2017 left out, worded and
laid out by the same functions, written; that they made the same rounds is checked. `--plain N` is the largest size that
the straightforward way is given; above it, its figures are those of that size times the ratio of the sizes. `--engine
ray` builds each size on Ray, on a cluster of this machine that starts and ends with the build; with both engines, that
the files are the same is checked.

Memory is the highest sum of the proportional set sizes of all processes of a build, sampled; `parent_mb`, `workers_mb`
and `ray_mb` (Ray's own processes) are the highest of each alone. `user_s` and `system_s` are of all of them."""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

# of the records, about as COCO and Visual Genome have them
SHARES = {"coco-captions": 0.15, "vqav2": 0.15, "vg-qa": 0.2, "vg-regions": 0.5}
PER_IMAGE = 50  # records
RECIPE = ["coco-captions", "vqav2", "vg-qa", "vg-regions"]
THINGS = "dog cat bus train kite clock umbrella bench horse giraffe laptop pizza surfboard zebra boat vase".split()
COLOURS = "red green blue white black brown yellow grey orange pink".split()
ACTS = "standing sitting running sleeping waiting looking eating flying parked lying".split()
PLACES = (
    "on the table,near the window,in the street,under a tree,at the station,by the water,behind the fence,in the grass"
).split(",")
ASKED = [
    "What color is the {thing} {place}?",
    "How many {thing}s are {act} {place}?",
    "Is the {thing} {act}?",
    "Where is the {color} {thing}?",
    "What is {act} {place}?",
]


def phrase(draw: random.Random) -> str:
    return f"{draw.choice(COLOURS)} {draw.choice(THINGS)} {draw.choice(ACTS)} {draw.choice(PLACES)}"


def question(draw: random.Random) -> tuple[str, str]:
    blanks = {
        "thing": draw.choice(THINGS),
        "place": draw.choice(PLACES),
        "act": draw.choice(ACTS),
        "color": draw.choice(COLOURS),
    }
    form = draw.randrange(len(ASKED))
    return ASKED[form].format(**blanks), [
        blanks["color"],
        str(draw.randint(1, 9)),
        draw.choice(["yes", "no"]),
        blanks["place"],
        blanks["thing"],
    ][form]


def array(path: Path, head: str, rows, tail: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.write(head)
        for number, row in enumerate(rows):
            file.write((", " if number else "") + json.dumps(row))
        file.write(tail)


def make(folder: Path, records: int) -> int:
    "Annotation files with `records` records; how many bytes they are."
    draw, count = random.Random(0), {name: int(records * share) for name, share in SHARES.items()}
    images = records // PER_IMAGE
    coco, genome = range(1, images // 2 + 1), range(1, images + 1)  # the even numbers of Visual Genome are COCO's
    listed = [
        {
            "id": i,
            "width": 640,
            "height": 480,
            "file_name": f"{i:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg",
        }
        for i in coco
    ]

    def caption(k):
        return {"image_id": coco[k // 5 % len(coco)], "id": k, "caption": f"A {phrase(draw)} with a {phrase(draw)}."}

    array(
        folder / "annotations/captions_train2017.json",
        f'{{"info": {{}}, "licenses": [], "images": {json.dumps(listed)}, "annotations": [',
        map(caption, range(count["coco-captions"])),
        "]}",
    )
    clean = [
        image | {"coco_url": f"http://images.cocodataset.org/val2017/{image['id']:012d}.jpg"} for image in listed[::25]
    ]
    array(
        folder / "annotations/instances_val2017.json", '{"images": [', clean, '], "annotations": [], "categories": []}'
    )

    def asked(k):
        return coco[k % len(coco)], k, *question(random.Random(k))

    vqa = range(count["vqav2"])
    array(
        folder / "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
        '{"questions": [',
        ({"image_id": i, "question": q, "question_id": k} for i, k, q, _ in map(asked, vqa)),
        "]}",
    )
    array(
        folder / "vqav2/v2_mscoco_train2014_annotations.json",
        '{"annotations": [',
        (
            {
                "question_type": "what",
                "multiple_choice_answer": a,
                "image_id": i,
                "answer_type": "other",
                "question_id": k,
                "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
            }
            for i, k, _, a in map(asked, vqa)
        ),
        "]}",
    )
    array(
        folder / "visual_genome/image_data.json",
        "[",
        ({"image_id": i, "width": 800, "height": 600, "coco_id": None if i % 2 else i // 2} for i in genome),
        "]",
    )
    per = count["vg-qa"] // images

    def answered(i):
        # now and then, VQAv2's question once more
        said = [asked(i // 2 - 1)[2:] if n == 0 and i % 2 == 0 else question(draw) for n in range(per)]
        return {
            "id": i,
            "qas": [
                {
                    "a_objects": [],
                    "question": q,
                    "image_id": i,
                    "qa_id": i * 100 + n,
                    "answer": a.capitalize() + ".",
                    "q_objects": [],
                }
                for n, (q, a) in enumerate(said)
            ],
        }

    array(folder / "visual_genome/question_answers.json", "[", map(answered, genome), "]")
    per_region = count["vg-regions"] // images

    def described(i):
        return {
            "id": i,
            "regions": [
                {
                    "region_id": i * 100 + n,
                    "image_id": i,
                    "phrase": phrase(draw),
                    "x": draw.randrange(400),
                    "y": draw.randrange(300),
                    "width": draw.randint(9, 399),
                    "height": draw.randint(9, 299),
                }
                for n in range(per_region)
            ],
        }

    array(folder / "visual_genome/region_descriptions.json", "[", map(described, genome), "]")
    return sum(path.stat().st_size for path in folder.rglob("*.json"))


def recipe():
    from cocoift.data.build.recipe import BuildRecipe

    return BuildRecipe(name="bench", sources=dict.fromkeys(RECIPE, {}), clean=["val2017"])


def ours(data: Path, out: Path) -> None:
    from cocoift.data.build.make import build

    build(recipe(), data, out)


def on_ray(data: Path, out: Path) -> None:
    from cocoift.data.build.make import build

    build(recipe(), data, out, engine="ray")


def digests(out: Path) -> dict[str, str]:  # of a set's files
    from cocoift.files import digest

    return {str(path.relative_to(out)): digest(path) for path in sorted(out.rglob("*")) if path.is_file()}


def plain(data: Path, out: Path) -> None:
    "The straightforward way."
    from cocoift.data.build.compose import LAYOUTS, LayoutRound, compose, place
    from cocoift.data.build.settle import dedup_key
    from cocoift.data.build.templates import drafts, draw_of
    from cocoift.data.sources.genome import vg_answer, vg_phrase
    from cocoift.data.sources.record import Record, fault

    told = recipe()
    genome = {row["image_id"]: row for row in json.load(open(data / "visual_genome/image_data.json"))}
    records = [
        Record("coco-captions", str(a["id"]), f"coco:{a['image_id']}", "caption", answers=(a["caption"],))
        for a in json.load(open(data / "annotations/captions_train2017.json"))["annotations"]
    ]
    questions = {
        q["question_id"]: q
        for q in json.load(open(data / "vqav2/v2_OpenEnded_mscoco_train2014_questions.json"))["questions"]
    }
    for a in json.load(open(data / "vqav2/v2_mscoco_train2014_annotations.json"))["annotations"]:
        votes = Counter(given["answer"] for given in a["answers"])
        records.append(
            Record(
                "vqav2",
                str(a["question_id"]),
                f"coco:{a['image_id']}",
                "qa",
                questions[a["question_id"]]["question"],
                (a["multiple_choice_answer"],),
                votes=votes[a["multiple_choice_answer"]] / votes.total(),
            )
        )

    def name(i):
        return f"vg:{i}" if genome[i]["coco_id"] is None else f"coco:{genome[i]['coco_id']}"

    for row in json.load(open(data / "visual_genome/question_answers.json")):
        records += [
            Record("vg-qa", str(q["qa_id"]), name(row["id"]), "qa", q["question"], (vg_answer(q["answer"]),))
            for q in row["qas"]
        ]
    for row in json.load(open(data / "visual_genome/region_descriptions.json")):
        w, h = genome[row["id"]]["width"], genome[row["id"]]["height"]
        records += [
            Record(
                "vg-regions",
                str(r["region_id"]),
                name(row["id"]),
                "region",
                answers=(vg_phrase(r["phrase"]),),
                boxes=(
                    (
                        round(r["x"] / w, 4),
                        round(r["y"] / h, 4),
                        round((r["x"] + r["width"]) / w, 4),
                        round((r["y"] + r["height"]) / h, 4),
                    ),
                ),
            )
            for r in row["regions"]
        ]
    clean = {f"coco:{image['id']}" for image in json.load(open(data / "annotations/instances_val2017.json"))["images"]}
    same = defaultdict(list)
    for record in records:
        if record.image not in clean and not fault(record) and record.votes >= told.votes:
            asked, answer = dedup_key(record)
            same[record.image, asked].append((answer, record))
    by_image = defaultdict(list)
    for some in same.values():
        votes = Counter(answer for answer, _ in some) if len(some) > 1 else {}
        by_image[some[0][1].image].append(max(some, key=lambda one: votes.get(one[0]))[1])
    conversations = []
    for image, some in by_image.items():
        worded = [
            d
            for record in some
            for d in drafts(record, draw_of(told.seed, record.source, record.id), told.free, told.templates)
        ]
        pieces = [LayoutRound(d.format, d.bare, tokens=(len(d.stated) + len(d.response)) // 4) for d in worded]
        for number, group in enumerate(
            compose(pieces, told.layout, told.lengths, random.Random(f"{told.seed} {image}"))
        ):
            states = place([worded[i].format for i in group], LAYOUTS[told.layout].placement)
            turns = [
                {"from": who, "value": text}
                for i, state in zip(group, states)
                for who, text in (("human", worded[i].stated if state else worded[i].bare), ("gpt", worded[i].response))
            ]
            conversations.append({"id": f"{image}/{number}", "image": image, "conversations": turns})
    out.mkdir()
    with open(out / "llava.json", "w") as file:
        json.dump(conversations, file)


OWN = (
    "raylet",
    "gcs_server",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "/ray/dashboard/",
    "/ray/_private/",
    "/ray/autoscaler/",
)  # processes of Ray itself


def part_of(process: psutil.Process, parent: int) -> str:
    if process.pid == parent:
        return "parent_mb"
    called = [process.name(), *process.cmdline()]
    return "ray_mb" if any(own in word for own in OWN for word in called[:3]) else "workers_mb"


def sample(process: psutil.Process, used: dict[int, tuple[float, float]]) -> Counter:
    "MB by part; `used` gets each process's seconds, user and system."
    held = Counter()
    for one in [process, *process.children(recursive=True)]:
        try:
            held[part_of(one, process.pid)] += one.memory_full_info().pss / 2**20
            used[one.pid] = one.cpu_times()[:2]
        except psutil.Error:
            pass
    return held


def timed(way: str, data: Path, out: Path) -> dict:
    "Seconds by the clock and of processors, and peak memory, of one way in a process of its own."
    start, peak, used = time.perf_counter(), Counter(), {}
    child = subprocess.Popen(
        [sys.executable, __file__, "--way", way, "--data", data, "--out", out], stderr=subprocess.PIPE, text=True
    )
    process = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            held = sample(process, used)
        except psutil.Error:
            continue
        held["peak_mb"] = sum(held.values())
        peak |= held
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if child.returncode:
        sys.exit(f"{way}: {child.stderr.read()}")
    user, system = map(sum, zip(*used.values()))
    processor = {"processor_s": user + system, "user_s": user, "system_s": system}
    return {name: round(value, 2) for name, value in {"seconds": seconds, **processor, **peak}.items()}


def rounds_of(out: Path) -> Counter:  # instruction and answer of every round, by a hash
    if (out / "llava.json").exists():
        said = (
            (c["image"], turn["value"], answer["value"])
            for c in json.load(open(out / "llava.json"))
            for turn, answer in zip(c["conversations"][::2], c["conversations"][1::2])
        )
    else:
        from cocoift.conversation import read_conversations

        said = ((c.image, r.instruction, r.response) for c in read_conversations(out) for r in c.rounds)
    return Counter(map(hash, said))


def built(size: int, engines: list[str], plainly: bool) -> dict:
    "Figures of one size; what each way made is deleted before the next one begins."
    with TemporaryDirectory() as folder:
        home, told, files, rounds = Path(folder), {}, [], []
        told["input_mb"] = round(make(home / "data", size) / 2**20)
        for way in [*engines, *["plain"] * plainly]:
            out = home / way
            measured = timed(way, home / "data", out)
            if way == "embedded":
                told |= measured | {"records_per_s": round(size / measured["seconds"])}
            else:
                told[way] = measured
            files += [digests(out)] * (way != "plain")
            rounds += [rounds_of(out)] * (size <= 100_000)
            shutil.rmtree(out)
        if len(files) > 1:
            told["ray"]["same_files"] = files[0] == files[1]
        if plainly and rounds:
            told["same_rounds"] = rounds[0] == rounds[-1]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", "--sizes", dest="sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10**7])
    parser.add_argument("--plain", type=int, default=1_000_000)
    parser.add_argument("--engine", nargs="+", choices=("embedded", "ray"), default=["embedded"])
    parser.add_argument("--ray", dest="engine", action="store_const", const=["embedded", "ray"], help="both engines")
    parser.add_argument("--quick", action="store_true", help="20,000 records only")
    parser.add_argument("--way")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.way:
        {"embedded": ours, "plain": plain, "ray": on_ray}[args.way](args.data, args.out)
        return
    told, against, last = {}, {}, None
    for size in [20_000] if args.quick else args.sizes:
        told[str(size)] = of_size = built(size, args.engine, size <= args.plain)
        last = (size, of_size["plain"]) if "plain" in of_size else last
        if last and "seconds" in of_size:
            ratio = size / last[0]
            against[str(size)] = {
                "speed": round(last[1]["seconds"] * ratio / of_size["seconds"], 2),
                "processor": round(last[1]["processor_s"] * ratio / of_size["processor_s"], 2),
                "memory": round(last[1]["peak_mb"] * ratio / of_size["peak_mb"], 2),
                "extrapolated": ratio > 1,
            }
        print(size, of_size, against.get(str(size)), file=sys.stderr)
    print(json.dumps({"sizes": told, "vs_plain": against}))


if __name__ == "__main__":
    main()
