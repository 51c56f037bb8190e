#include "run/counters.h"

#include "base/log.h"

static bool read_counters(const qr_simulation *simulation, qr_counters *out)
{
    if (simulation->ops->counters == NULL) {
        return false;
    }
    simulation->ops->counters(simulation->backend, out);
    return true;
}

/* Of the step loop: halo exchange to hand-over of output. */
static double loop_seconds(const qr_simulation *simulation)
{
    double sum = 0.0;
    for (int p = QR_PHASE_HALO; p <= QR_PHASE_OUTPUT; p++) {
        sum += simulation->timers.seconds[p];
    }
    return sum;
}

static double share(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

void qr_counters_to_json(const qr_simulation *simulation, json_t *object)
{
    qr_counters c;
    if (object == NULL || !read_counters(simulation, &c)) {
        return;
    }
    (void)json_object_set_new(object, "kernel_s", json_real(c.kernel_s));
    (void)json_object_set_new(object, "gpu_busy", json_real(share(c.kernel_s, loop_seconds(simulation))));
    (void)json_object_set_new(object, "moved_bytes", json_real(c.moved_bytes));
    if (c.copy_bytes_per_s > 0.0) {
        (void)json_object_set_new(object, "copy_bytes_per_s", json_real(c.copy_bytes_per_s));
        (void)json_object_set_new(object, "moved_of_copy",
                                  json_real(share(share(c.moved_bytes, c.kernel_s), c.copy_bytes_per_s)));
    }
    if (c.has_phases) {
        (void)json_object_set_new(object, "device_halo_s", json_real(c.halo_s));
        (void)json_object_set_new(object, "device_update_s", json_real(c.update_s));
        (void)json_object_set_new(object, "device_reduce_s", json_real(c.reduce_s));
    }
}

void qr_counters_print(const qr_simulation *simulation)
{
    qr_counters c;
    if (!read_counters(simulation, &c)) {
        return;
    }
    double busy = share(c.kernel_s, loop_seconds(simulation));
    double rate = share(c.moved_bytes, c.kernel_s);
    double least[2] = {busy, rate};
    double most[2] = {busy, rate};
    MPI_Allreduce(MPI_IN_PLACE, least, 2, MPI_DOUBLE, MPI_MIN, simulation->comm->compute);
    MPI_Allreduce(MPI_IN_PLACE, most, 2, MPI_DOUBLE, MPI_MAX, simulation->comm->compute);
    if (simulation->comm->me.part != 0) {
        return;
    }
    qr_info("  GPUs: in kernels for %.1f to %.1f %% of the step loop; memory moved at %.4g to %.4g GB/s at least",
            100.0 * least[0], 100.0 * most[0], least[1] * 1e-9, most[1] * 1e-9);
    if (c.copy_bytes_per_s > 0.0) {
        qr_info("  GPU of compute rank 0: a copy moves %.4g GB/s, the steps %.1f %% of that", c.copy_bytes_per_s * 1e-9,
                100.0 * rate / c.copy_bytes_per_s);
    }
    if (c.has_phases) {
        qr_info("  GPU of compute rank 0, from one step of each batch: halo exchange %.3f s, update and tally %.3f s, "
                "reduce and decide %.3f s",
                c.halo_s, c.update_s, c.reduce_s);
    }
}
