"""Time from a logged model to its first answer, compared with an agent written as MLflow's documentation writes one."""
