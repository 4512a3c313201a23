"""The use cases behind the API: what each of its calls, and each request on the attach socket, does. They know neither HTTP
nor the sockets."""
