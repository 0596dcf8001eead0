"""What is around the filter, product by product: rules to compare with, stored values, clients."""
