-- The service's own database is made by the image; MLflow has one beside it.
CREATE DATABASE mlflow;
