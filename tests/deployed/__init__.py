"""The whole product on a cluster, as a platform team deploys it: our images, our chart, one label on their Deployment.

target.py      a cluster that takes our images: the real node here, kind, or whatever KUBECONFIG names
store.py       an S3 server in it
release.py     the chart
serving.py     a Deployment that serves a model, and its pods
scene.py       all of them together, for end-to-end tests, the demo and the bench
"""
