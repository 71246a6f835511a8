"""On the path of servers that tests start: what Ray would import of the tests' own tools, and never uses.

Ray needs jsonschema. jsonschema takes this library along where it is installed, which is so because a tool
of ours (cyclonedx-bom) wants it; it compiles a grammar when it is imported, and that took each of Ray's
processes 1.6 s. Installed without the tests' tools, Xinglin has no such library.
"""

raise ImportError("left out")
