"""Small datasets in the layouts that lmms-eval's tasks read from the hub, about drawn scenes: no hub is reachable here.

`layouts.write(folder)` writes one folder a dataset, named as on the hub; lmms-eval finds them when it runs in `folder`,
and `cocoift eval --data folder` finds them there."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from cocoift.scenes import SceneQuestion, draw_scene, make_scene, scene_questions

LETTERS = "ABCD"
WRONG = {
    "colour": ("red", "blue", "green", "yellow", "purple", "orange"),
    "shape": ("circle", "square", "triangle", "star", "cross"),
    "count": ("1", "2", "3", "4", "5", "6"),
    "place": ("top left", "top right", "bottom left", "bottom right", "middle"),
}
MME_CATEGORIES = ("existence", "count", "color", "position", "commonsense_reasoning")


def scenes(number: int) -> Iterator[tuple[object, list[SceneQuestion]]]:  # a picture and questions about it
    draws = random.Random("lmms-eval")
    for _ in range(number):
        scene = make_scene(draws)
        asked = scene_questions(scene, draws, 12)
        yield draw_scene(scene, draws), asked


def options(q: SceneQuestion, draws: random.Random) -> tuple[list[str], str]:  # four, and the letter of the right one
    wrong = [w for w in WRONG.get(q.kind, ()) if w.lower() != q.short.lower()]
    four = [q.short, *draws.sample(wrong, 3)]
    draws.shuffle(four)
    return four, LETTERS[four.index(q.short)]


def listed(four: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, four))


def rows(number: int) -> dict[str, list[dict]]:  # dataset's name on the hub -> its documents
    made = {name: [] for name in HOMES}
    draws = random.Random(0)
    for k, (picture, asked) in enumerate(scenes(number)):
        choice = next(q for q in asked if len(WRONG.get(q.kind, ())) > 3 and q.short.lower() in WRONG[q.kind])
        yes_no = [q for q in asked if q.short.lower() in ("yes", "no")][:2]
        four, letter = options(choice, draws)
        for name, write in MULTIPLE.items():
            made[name].append(write(k, picture, choice, four, letter))
        for j, q in enumerate((yes_no * 2)[:2]):
            for name, write in YES_NO.items():
                made[name].append(write(2 * k + j, k, picture, q))
        for name, write in SHORT.items():
            made[name].append(write(k, picture, choice))
    return made


def mmbench(k, picture, q, four, letter):
    about = {"category": "attribute_recognition", "L2-category": "finegrained_perception (instance-level)"}
    texts = {"hint": "nan", "source": "scenes", "comment": "nan", "split": "dev"}
    return {
        "index": k,
        "question": q.text,
        "image": picture,
        **dict(zip(LETTERS, four)),
        "answer": letter,
        **about,
        **texts,
    }


def seedbench(k, picture, q, four, letter):
    choices = {f"choice_{name.lower()}": text for name, text in zip(LETTERS, four)}
    about = {"data_id": str(k), "data_type": "image", "question_type_id": 1, "segment": []}
    return {"answer": letter, **choices, **about, "question": q.text, "question_id": str(k), "image": [picture]}


def mmmu(k, picture, q, four, letter):
    images = {f"image_{n}": picture if n == 1 else None for n in range(1, 8)}
    kind, answer = ("multiple-choice", letter) if k % 4 else ("open", q.short)
    about = {"explanation": "", "img_type": "['Photographs']", "topic_difficulty": "Easy", "subfield": "Scenes"}
    asked = f"<image 1> {q.text}" if k % 2 else f"{q.text} <image 1>"
    text = {"id": f"validation_Art_{k + 1}", "question": asked, "options": str(four) if k % 4 else "[]"}
    return {**text, **images, "answer": answer, "question_type": kind, **about}


def mmstar(k, picture, q, four, letter):
    asked = q.text + "\nOptions: " + ", ".join(f"{name}: {text}" for name, text in zip(LETTERS, four))
    about = {"category": "fine-grained perception", "l2_category": "recognition", "meta_info": "{}"}
    return {"index": k, "question": asked, "image": picture, "answer": letter, **about}


def scienceqa(k, picture, q, four, letter):
    about = dict.fromkeys("task grade subject topic category skill lecture solution".split(), "scenes")
    asked = {"question": q.text, "choices": four, "answer": LETTERS.index(letter), "hint": ""}
    return {"image": picture, **asked, **about}


def ai2d(k, picture, q, four, letter):
    return {"question": q.text, "options": four, "answer": str(LETTERS.index(letter)), "image": picture}


def realworldqa(k, picture, q, four, letter):
    order = "Please answer directly with only the letter of the correct option and nothing else."
    return {
        "image": picture,
        "question": f"{q.text}\n{listed(four)}\n{order}",
        "answer": letter,
        "image_path": f"{k}.webp",
    }


def mme(n, k, picture, q):
    category = MME_CATEGORIES[k % len(MME_CATEGORIES)]
    asked = {"question": f"{q.text} Please answer yes or no.", "answer": q.short.capitalize(), "category": category}
    return {"question_id": f"{category}/{k:012d}.png", "image": picture, **asked}


def pope(n, k, picture, q):
    asked = {"question": q.text, "answer": q.short.lower(), "category": "random"}
    return {
        "id": str(n),
        "question_id": str(n),
        **asked,
        "image_source": f"COCO_val2014_{k + 1:012d}",
        "image": picture,
    }


def hallusion(n, k, picture, q):
    about = {"category": "VS", "subcategory": "figure", "visual_input": "1", "sample_note": "scenes"}
    ids = {"set_id": str(k), "figure_id": "0", "question_id": str(n % 2)}
    answers = {"gt_answer_details": q.sentence, "gt_answer": "1" if q.short.lower() == "yes" else "0"}
    return {**about, **ids, "question": q.text, **answers, "filename": f"./{k}.png", "image": picture}


def textvqa(k, picture, q):
    about = {"image_id": f"{k:016x}", "question_id": k, "question_tokens": q.text.split(), "image_classes": ["Scene"]}
    size = {"image_width": picture.width, "image_height": picture.height, "ocr_tokens": [q.short]}
    names = {"flickr_original_url": "", "flickr_300k_url": "", "dataset_name": "textvqa", "set_name": "val"}
    return {**about, **size, **names, "question": q.text, "image": picture, "answers": [q.short.lower()] * 10}


def mmvet(k, picture, q):
    asked = {"question": q.text, "answer": q.sentence, "capability": "rec", "image_source": "web"}
    return {"question_id": f"v1_{k}", "image": picture, **asked}


MULTIPLE = {
    "lmms-lab-encoder/MMBench": mmbench,
    "lmms-lab-encoder/SEED-Bench": seedbench,
    "lmms-lab-encoder/MMMU": mmmu,
    "Lin-Chen/MMStar": mmstar,
    "lmms-lab-encoder/ScienceQA": scienceqa,
    "lmms-lab-encoder/ai2d": ai2d,
    "lmms-lab-encoder/RealWorldQA": realworldqa,
}
YES_NO = {"lmms-lab-encoder/MME": mme, "lmms-lab-encoder/POPE": pope, "lmms-lab-encoder/HallusionBench": hallusion}
SHORT = {"lmms-lab-encoder/textvqa": textvqa, "lmms-lab-encoder/MMVet": mmvet}
HOMES = {  # configuration and split of each
    "lmms-lab-encoder/MMBench": ("en", "dev"),
    "lmms-lab-encoder/SEED-Bench": ("default", "test"),
    "lmms-lab-encoder/MMMU": ("default", "validation"),
    "Lin-Chen/MMStar": ("val", "val"),
    "lmms-lab-encoder/ScienceQA": ("ScienceQA-IMG", "test"),
    "lmms-lab-encoder/ai2d": ("default", "test"),
    "lmms-lab-encoder/RealWorldQA": ("default", "test"),
    "lmms-lab-encoder/MME": ("default", "test"),
    "lmms-lab-encoder/POPE": ("default", "test"),
    "lmms-lab-encoder/HallusionBench": ("default", "image"),
    "lmms-lab-encoder/textvqa": ("default", "validation"),
    "lmms-lab-encoder/MMVet": ("default", "test"),
}


def write(folder: str | Path, number: int = 20) -> None:  # scenes
    "One folder a dataset, with the parquet file and the card that name its configuration and split."
    from datasets import Dataset, Features, Image, List

    for name, documents in rows(number).items():
        (configuration, split), home = HOMES[name], Path(folder, name)
        home.mkdir(parents=True)
        found = Dataset.from_list([{k: v for k, v in d.items() if not is_picture(v)} for d in documents]).features
        pictured = {
            k: List(Image()) if isinstance(v, list) else Image() for k, v in documents[0].items() if is_picture(v)
        }
        pictured |= {f"image_{n}": Image() for n in range(2, 8) if "image_2" in documents[0]}
        order = {k: (pictured | dict(found))[k] for k in documents[0]}
        Dataset.from_list(documents, features=Features(order)).to_parquet(home / f"{split}.parquet")
        files = f"- config_name: {configuration}\n  data_files:\n  - split: {split}\n    path: {split}.parquet\n"
        (home / "README.md").write_text(f"---\nconfigs:\n{files}---\n")


def is_picture(value: object) -> bool:
    return hasattr(value, "getpixel") or (isinstance(value, list) and bool(value) and hasattr(value[0], "getpixel"))
