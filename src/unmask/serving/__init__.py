"""The HTTP server and its page: uploads are decoded in processes that can be killed, and judged by followed models.

Importing this room imports neither mlflow nor torch; where models come from is a protocol (`models.ModelSource`).
"""
