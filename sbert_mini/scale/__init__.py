"""The same work on engines that span machines: bulk encoding on Ray Data, serving on Milvus."""
