"""Runs one test of Eclipse Paho's interoperability suites against a broker on 127.0.0.1, or lists the tests.

usage: one_test.py SUITE             the names of its tests
       one_test.py SUITE PORT TEST   exit code 0: passed, 1: failed, 3: it did not come to run

SUITE is client_test (MQTT 3.1.1) or client_test5 (MQTT 5). The suites are used as they are: they can't be told the port of a broker and one test
at once, so what they set when they are run as programs is set here.
"""

import importlib
import os
import pathlib
import sys
import types
import unittest

SUITES = pathlib.Path(__file__).parent.parent / "third-party" / "paho.mqtt.testing" / "interoperability"
# Those of client_test.py. client_test5.py sets the same itself.
TOPICS = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
WILD_TOPICS = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
NO_SUBSCRIBE_TOPICS = ("test/nosubscribe",)


def load(name):
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(SUITES))
    # Paho's own broker, which their package imports and their clients don't need, is not here.
    sys.modules["mqtt.brokers"] = types.ModuleType("mqtt.brokers")
    return importlib.import_module(name)


def aim(suite, port):
    suite.host, suite.port = "127.0.0.1", port
    suite.topics, suite.wildtopics, suite.nosubscribe_topics = TOPICS, WILD_TOPICS, NO_SUBSCRIBE_TOPICS


def main(name, port=None, test=None):
    suite = load(name)
    if test is None:
        print("\n".join(unittest.defaultTestLoader.getTestCaseNames(suite.Test)))
        return 0
    aim(suite, int(port))
    result = unittest.TextTestRunner().run(unittest.TestSuite([suite.Test(test)]))
    if result.testsRun != 1:
        # What it does before its tests has failed, and says nothing about them.
        return 3
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Their clients' threads may wait for a socket for ever.
    os._exit(status)
