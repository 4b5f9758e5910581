"""The metric and the recipes of the support desk."""
