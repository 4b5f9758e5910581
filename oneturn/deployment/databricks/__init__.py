"""Deploy to Model Serving, Databricks Apps and bundles."""
