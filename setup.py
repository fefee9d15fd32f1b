"Hands the packaging facts of settings.ini to setuptools; pyproject.toml holds only what has to stand there."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
SUFFIX = "_requirements"

parser = ConfigParser(delimiters=["="])
parser.read(ROOT / "settings.ini", encoding="utf-8")
facts = parser["DEFAULT"]

extras = {key.removesuffix(SUFFIX): facts[key].split() for key in facts if key.endswith(SUFFIX)}
APART = {"harness", "energon", "gpu"}  # bring worlds of their own, exclude versions of ours, or need a GPU's compiler
extras["all"] = sorted({need for name, needs in extras.items() if name not in APART for need in needs})

setup(
    name=facts["lib_name"],
    version=facts["version"],
    description=facts["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license=facts["license"],
    author=facts["author"],
    keywords=facts["keywords"],
    url=facts["git_url"],
    packages=find_packages(include=["cocoift", "cocoift.*", "apps", "apps.*"]),
    package_data={
        "cocoift": ["recipes/*.yaml", "wordings/*.yaml", "prompts/*/*.yaml", "eval/prompts/*.txt", "viz/*.css"]
    },
    python_requires=f">={facts['min_python']}",
    install_requires=facts["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": facts["console_scripts"].split(),
        "lmms_eval.models": facts["lmms_eval_models"].split(),
        "nbdev": [f"{facts['lib_name']}={facts['lib_path']}._modidx:d"],
    },
)
