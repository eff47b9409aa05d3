"""Proof: a real kube-apiserver takes the Helm chart, and upgrades keep what they must.

kube-apiserver, its controller manager and scheduler, etcd and kubectl come from the folders of
CLUSTER_PROGRAMS; the definitions of KEDA, the Prometheus Operator and the Gateway API are the YAML
files of CLUSTER_CRDS. There is no kubelet: a loop says of every scheduled pod that it runs.
"""
