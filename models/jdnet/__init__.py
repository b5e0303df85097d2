"""JDNet (ACM MM 2020): the network, its modules, and its operators."""
