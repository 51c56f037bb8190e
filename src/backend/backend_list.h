/* Every backend, once; the reference comes first. Include it with QR_BACKEND defined. */
QR_BACKEND(cpu)
