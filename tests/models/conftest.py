"""Small networks run fastest on one thread, above all beside other work."""

from tests.training.conftest import one_thread as one_thread
