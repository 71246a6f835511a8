"""A Ray cluster of two nodes on this machine, in a process of its own: `python -m tests.support.two_nodes`.
With `one` behind it the cluster has one node alone.

Prints one line of JSON (address, token, the two nodes' raylets), then waits for a line on its input and
kills the second node without a word; ends when the input does.
"""

import json
import os
import sys

from actors import ray_environment

ray_environment.prepare(None)

from ray.cluster_utils import Cluster  # noqa: E402  (Ray reads its environment when it is imported)

STORE_BYTES = 80 * 1024 * 1024


def main() -> None:
    node = {"num_cpus": 2, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    nodes = [cluster.head_node]
    if sys.argv[1:] != ["one"]:
        nodes.append(cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES))
    cluster.wait_for_nodes()
    raylets = [started.process.pid for n in nodes for started in n.all_processes["raylet"]]
    told = {
        "address": cluster.address,
        "environment": {k: v for k, v in os.environ.items() if k.startswith("RAY_")},
        "raylets": raylets,
    }
    print(json.dumps(told), flush=True)
    try:
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(nodes[-1], allow_graceful=False)
                print("killed", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
