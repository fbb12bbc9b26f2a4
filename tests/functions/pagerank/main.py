"""The ranks of a graph's nodes, given its edges."""
import igraph


def main(payload):
    graph = igraph.Graph(n=payload["nodes"], edges=payload["edges"], directed=True)
    return graph.pagerank(damping=0.85)
