"""The typed configuration of an agent: ``AgentConfig`` and its sections."""

from oneturn.config.agent import AgentConfig, ApprovalsConfig, DataConfig, MlflowConfig, ServeConfig
from oneturn.config.compilation import BudgetConfig, CompileConfig, GateConfig, JudgeConfig
from oneturn.config.deployment import AppConfig, DeployConfig, ResourceConfig
from oneturn.config.lm import LMConfig
from oneturn.config.retriever import EmbeddingsConfig, RetrieverConfig

__all__ = [
    "AgentConfig",
    "AppConfig",
    "ApprovalsConfig",
    "BudgetConfig",
    "CompileConfig",
    "DataConfig",
    "DeployConfig",
    "EmbeddingsConfig",
    "GateConfig",
    "JudgeConfig",
    "LMConfig",
    "MlflowConfig",
    "ResourceConfig",
    "RetrieverConfig",
    "ServeConfig",
]
