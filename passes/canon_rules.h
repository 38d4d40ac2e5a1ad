/* canon_rules.h -- the rules of pass `canon`. */
#ifndef ZM_PASSES_CANON_RULES_H
#define ZM_PASSES_CANON_RULES_H

#include "passes/rewrite.h"

extern const Rule canon_rules[];
extern const uint32_t n_canon_rules;

/* canon_point.c: element-wise ops */
RewriteFn rule_cast_same, rule_cast_of_cast, rule_cast_of_view_of_cast, rule_div_by_power_of_two,
    rule_fold_point, rule_point_of_broadcasts, rule_select_const;
/* canon_views.c: reshape, broadcast, transpose, slice, pad */
RewriteFn rule_broadcast_same, rule_broadcast_of_broadcast, rule_broadcast_of_reshape,
    rule_broadcast_to_reshape, rule_concat_of_concat, rule_concat_of_one, rule_concat_of_pads,
    rule_view_of_const, rule_pad_nothing, rule_pad_of_pad, rule_reshape_same,
    rule_reshape_of_reshape, rule_slice_everything, rule_slice_of_broadcast, rule_slice_of_concat,
    rule_slice_of_pad, rule_slice_of_slice, rule_transpose_identity, rule_transpose_of_transpose,
    rule_transpose_to_reshape;
/* var[0] reshaped to t's dimensions; none where that is not of type t. */
ValueId rule_reshape_to(Rewrite *rw, const Type *t);
/* canon_reduce.c: reductions, matmul, pack, scatter */
RewriteFn rule_drop_nothing, rule_matmul_of_transpose, rule_pack_of_one, rule_pack_of_views,
    rule_reduce_max_of_broadcast, rule_reduce_max_of_const, rule_reduce_of_reduce,
    rule_reduce_sum_of_broadcast, rule_reduce_unit, rule_scatter_into_sum;

#endif
