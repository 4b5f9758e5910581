"""Declare the support desk. This is MLflow's models-from-code file; the command line and the notebooks load it too.

It connects oneturn with the signature, the module, the recipes and the data in the folders next to it.
"""

import mlflow

import oneturn
from data.support import CORPUS, load_split
from modules.support_desk import support_desk
from oneturn.retrieval import read_markdown
from optimizers.metric import support_metric
from optimizers.recipes import RECIPES

ROOT = CORPUS.parents[1]  # this checkout, or the code folder of a logged model
CONFIG = oneturn.AgentConfig.read("configs/dev.yaml", root=ROOT)
HANDBOOK = oneturn.build_retriever(CONFIG, documents=lambda: read_markdown(CORPUS))

AGENT = oneturn.Agent(
    name="support_desk",
    config=CONFIG,
    build=lambda: support_desk(
        HANDBOOK,
        max_iters=CONFIG.max_iters,
        more_tools=oneturn.build_tools(CONFIG),
        tool_calling=CONFIG.tool_calling,
        thoughts=CONFIG.thoughts,
    ),
    metric=support_metric,
    examples=lambda split: load_split(split, ROOT / CONFIG.data.examples),
    recipes=RECIPES,
    root=ROOT,
    code_paths=("signatures", "modules", "optimizers", "data"),
    example_questions=(
        "Which port does our firewall have to open for outgoing traffic?",
        "What is the status of order M-1045?",
    ),
)

mlflow.models.set_model(AGENT.adapter())
