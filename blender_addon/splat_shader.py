"""The GPU program that draws splats: Eq. 5, projection, spherical harmonics and blending weights, one quad per splat.

It is the rasteriser of the engine (``engine/rasterise``) as a vertex and a fragment shader: the same projection
and the same numbers (``engine/picture_constants.py``), so that a final render equals the engine's picture.
Blending is the fixed-function ``ALPHA_PREMULT`` over splats sorted from back to front, in display-referred sRGB.
"""

from __future__ import annotations

import gpu

from ..engine import picture_constants

TEXTURE_WIDTH = 4096  # texels a row; the shader finds texel i of a table at (i % width, i / width)

# What the shader reads, each a table of RGBA32F texels (``sequence``: RG32F)
TABLES = (
    "sequence",  # slot -> splat and its avatar's first texel in frames, back to front
    "offsets",  # splat -> offset in its triangle's frame, triangle
    "rotations",  # splat -> wxyz
    "scales",  # splat -> standard deviations in the triangle's frame, opacity
    "sh_table",  # splat * C + k -> coefficient
    "frames",  # 4 * triangle + (0, 1, 2: row of the rotation, coordinate of the centre; 3: sqrt(area), 0: not drawn)
    "scene_depth",  # a rectangle of the viewport's depth buffer by pixel (where output_mode.y asks for it)
)

_TYPES = """
struct View {
  mat4 view_matrix;      /* world to view; view space looks along -z, y up */
  mat4 projection;       /* view to clip, for the picture's own pixels */
  vec4 viewport;         /* width, height in pixels, splat scale, 1 where orthographic */
  vec4 camera;           /* camera position in the world */
  vec4 output_mode;      /* x: 0 colour, 1 depth along the view; y: 1 to be hidden by scene_depth, whose first pixel
                            is zw */
  vec4 points;           /* x: above 0, splats are drawn as squares of so many pixels */
  ivec4 counts;          /* SH coefficients a splat */
};
"""

_VERTEX = """
vec4 texel(sampler2D table, int i) { return texelFetch(table, ivec2(i % WIDTH, i / WIDTH), 0); }

mat3 rotation(vec4 q) {
  q /= length(q);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
              2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
              2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y));
}

vec3 coefficient(int splat, int k) { return texel(sh_table, splat * view.counts.x + k).rgb; }

vec3 radiance(int splat, vec3 d) {
  float x = d.x, y = d.y, z = d.z;
  vec3 c = 0.28209479177387814 * coefficient(splat, 0);
  if (view.counts.x > 1) {
    c += 0.48860251190291987 * (-y * coefficient(splat, 1) + z * coefficient(splat, 2) - x * coefficient(splat, 3));
  }
  if (view.counts.x > 4) {
    c += 1.0925484305920792 * (x * y * coefficient(splat, 4) - y * z * coefficient(splat, 5)
                               - x * z * coefficient(splat, 7))
       + 0.31539156525252005 * (2.0 * z * z - x * x - y * y) * coefficient(splat, 6)
       + 0.5462742152960396 * (x * x - y * y) * coefficient(splat, 8);
  }
  if (view.counts.x > 9) {
    c += -0.5900435899266435 * y * (3.0 * x * x - y * y) * coefficient(splat, 9)
       + 2.890611442640554 * x * y * z * coefficient(splat, 10)
       - 0.4570457994644658 * y * (4.0 * z * z - x * x - y * y) * coefficient(splat, 11)
       + 0.3731763325901154 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y) * coefficient(splat, 12)
       - 0.4570457994644658 * x * (4.0 * z * z - x * x - y * y) * coefficient(splat, 13)
       + 1.445305721320277 * z * (x * x - y * y) * coefficient(splat, 14)
       - 0.5900435899266435 * x * (x * x - 3.0 * y * y) * coefficient(splat, 15);
  }
  return max(c + 0.5, vec3(0.0));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); /* outside: what returns early is clipped */
  tint = vec4(0.0);
  conic = vec3(0.0);
  centre = vec2(0.0);

  vec2 slot = texel(sequence, gl_InstanceID).rg;
  int splat = int(slot.x);
  vec4 offset = texel(offsets, splat);
  vec4 scale = texel(scales, splat);
  int frame = int(slot.y) + 4 * int(offset.w);

  /* Eq. 5: the triangle's frame, rows of the rotation with the centre behind each, then sqrt(area) */
  vec4 row0 = texel(frames, frame);
  vec4 row1 = texel(frames, frame + 1);
  vec4 row2 = texel(frames, frame + 2);
  float size = texel(frames, frame + 3).x;
  if (!(size > 0.0)) return;
  mat3 turn = transpose(mat3(row0.xyz, row1.xyz, row2.xyz));
  vec3 mean = size * (turn * offset.xyz) + vec3(row0.w, row1.w, row2.w);
  mat3 axes = turn * rotation(texel(rotations, splat));
  vec3 deviation = size * scale.xyz * view.viewport.z;

  vec3 p = (view.view_matrix * vec4(mean, 1.0)).xyz;
  vec4 clip = view.projection * vec4(p, 1.0);
  bool orthographic = view.viewport.w > 0.5;
  if (!orthographic && p.z > -NEAR) return;

  /* Covariance in view space, then in pixels */
  mat3 m = mat3(view.view_matrix) * axes * mat3(deviation.x, 0, 0, 0, deviation.y, 0, 0, 0, deviation.z);
  mat3 covariance = m * transpose(m);
  vec2 focal = 0.5 * view.viewport.xy * vec2(view.projection[0][0], view.projection[1][1]);
  mat3x2 jacobian;
  if (orthographic) {
    jacobian = mat3x2(focal.x, 0, 0, focal.y, 0, 0);
  } else {
    /* Too far beyond the view's edge the linearisation would explode: hold its slope there */
    vec2 middle = vec2(view.projection[2][0], view.projection[2][1]);
    vec2 half_width = 0.5 * view.viewport.xy / focal;
    vec2 low = (-1.0 + middle) * half_width - FRUSTUM_MARGIN * half_width;
    vec2 high = (1.0 + middle) * half_width + FRUSTUM_MARGIN * half_width;
    vec2 slope = clamp(p.xy / -p.z, low, high);
    float inverse = 1.0 / -p.z;
    vec2 rate = focal * inverse;
    jacobian = mat3x2(rate.x, 0, 0, rate.y, rate.x * slope.x, rate.y * slope.y);
  }
  mat2 spread = jacobian * covariance * transpose(jacobian);
  spread[0][0] += BLUR;
  spread[1][1] += BLUR;
  float determinant = spread[0][0] * spread[1][1] - spread[0][1] * spread[0][1];
  float opacity = scale.w;
  if (!(determinant > 0.0) || opacity < ALPHA_MIN) return;
  conic = vec3(spread[1][1], -spread[0][1], spread[0][0]) / determinant;

  /* The quad just holds the ellipse on which alpha falls below its cut-off */
  vec2 reach = sqrt(2.0 * log(opacity / ALPHA_MIN) * vec2(spread[0][0], spread[1][1])) + 0.5;
  if (view.points.x > 0.0) {
    conic = vec3(0.0);
    opacity = 1.0;
    reach = vec2(0.5 * view.points.x);
  }
  centre = (0.5 * clip.xy / clip.w + 0.5) * view.viewport.xy;
  vec2 pixel = centre + corner * reach;
  if (any(greaterThan(centre - reach, view.viewport.xy)) || any(lessThan(centre + reach, vec2(0.0)))) return;
  vec3 direction = normalize(mean - view.camera.xyz);
  vec3 colour = view.output_mode.x > 0.5 ? vec3(-p.z) : radiance(splat, transpose(turn) * direction);
  tint = vec4(colour, opacity);
  gl_Position = vec4((2.0 * pixel / view.viewport.xy - 1.0), clip.z / clip.w, 1.0);
}
"""

_FRAGMENT = """
void main() {
  ivec2 pixel = ivec2(gl_FragCoord.xy) - ivec2(view.output_mode.zw);
  if (view.output_mode.y > 0.5 && gl_FragCoord.z > texelFetch(scene_depth, pixel, 0).r) discard;
  vec2 d = gl_FragCoord.xy - centre;
  float alpha = min(ALPHA_MAX, tint.a * exp(-0.5 * (conic.x * d.x * d.x + conic.z * d.y * d.y) - conic.y * d.x * d.y));
  if (alpha < ALPHA_MIN) discard;
  result = vec4(tint.rgb * alpha, alpha);
}
"""


def splat_shader() -> gpu.types.GPUShader:
    """Compile the program. Needs an active GPU context; raises ``RuntimeError`` with the driver's words if it fails."""
    between = gpu.types.GPUStageInterfaceInfo("headstudio_splat")
    between.flat("VEC4", "tint")
    between.flat("VEC3", "conic")
    between.flat("VEC2", "centre")

    info = gpu.types.GPUShaderCreateInfo()
    info.typedef_source(_TYPES)
    info.uniform_buf(0, "View", "view")
    for slot, table in enumerate(TABLES):
        info.sampler(slot, "FLOAT_2D", table)
    info.vertex_in(0, "VEC2", "corner")
    info.vertex_out(between)
    info.fragment_out(0, "VEC4", "result")
    info.define("WIDTH", str(TEXTURE_WIDTH))
    for name in ("NEAR", "BLUR", "ALPHA_MIN", "ALPHA_MAX", "FRUSTUM_MARGIN"):
        info.define(name, repr(float(getattr(picture_constants, name))))
    info.vertex_source(_VERTEX)
    info.fragment_source(_FRAGMENT)
    return gpu.shader.create_from_info(info)
